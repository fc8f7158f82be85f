"""The resource manager: keeps a pool as large as the log says it should be."""
