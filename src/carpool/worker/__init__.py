"""One process per device: it hosts models and speaks a typed protocol; and the gateway's client to it."""
