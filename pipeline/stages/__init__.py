"""One file = one stage = one function. Rule: a stage never imports the recipe, the store or another stage."""
