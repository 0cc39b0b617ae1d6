"""`python -m tomada.sandbox`: see `tomada.sandbox.server`."""

from tomada.sandbox.server import main

main()
