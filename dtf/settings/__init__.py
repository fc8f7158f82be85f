"""Every default, once; the loader puts defaults < dtf.toml < DTF_* < flags together."""
