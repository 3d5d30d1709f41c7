"""Studies: one folder for each thing that a person asks for, with its call, its verdict or fit and its figure."""
