"""What the verbs of the command line do: choose, call the chain, print. Rule: cli.py imports each when it runs."""
