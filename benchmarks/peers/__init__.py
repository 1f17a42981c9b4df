"""What we are measured against: each peer in an environment and a process of its own."""
