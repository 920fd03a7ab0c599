"""`python -m benchmarks`: all of them."""

from benchmarks.run_all import main

main()
