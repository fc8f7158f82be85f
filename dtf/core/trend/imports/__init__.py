"""History that other tools wrote, as series. Texts in, series out: whoever calls this reads the files."""
