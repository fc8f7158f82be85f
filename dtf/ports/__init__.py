"""The seams: Protocols that the processes use and the adapters meet."""
