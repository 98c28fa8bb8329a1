"""What the gateway itself costs, before a worker that answers at once."""
