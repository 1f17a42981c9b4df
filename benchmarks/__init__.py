"""Side-by-side measurements against peers; each prints its table and writes it to build/bench/."""
