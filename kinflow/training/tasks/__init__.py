"""What is learned, one module a network: data, loss and validation."""
