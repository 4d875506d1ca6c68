"""A package, so that test files can import the contract kits whatever else is called `tests`."""
