"""gRPC as dtf uses it: channels, credentials, errors. Nothing here knows a rule."""
