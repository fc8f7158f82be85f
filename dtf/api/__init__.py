"""What is generated from proto/; `make proto` writes it and nothing else does."""
