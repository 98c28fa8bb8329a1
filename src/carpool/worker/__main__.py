"""`python -m carpool.worker`: the worker process."""

from carpool.worker.main import main

main()
