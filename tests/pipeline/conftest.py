"""What tests of the pipeline share; its folder is where they import helpers from."""
