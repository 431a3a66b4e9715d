"""The experiments of the papers as data, and what trains, tests and reproduces them."""
