"""What runs user code: warm processes started by exec from a parent free of gRPC.

Nothing here imports gRPC or protobuf; the worker speaks to it over a socket (channel.py).
"""
