"""The real supervisor with stand-ins for the `dtf` commands; nats-server is real."""

import sys
from pathlib import Path

from dtf.cli.supervisor import main

if __name__ == "__main__":
    main(program=(sys.executable, str(Path(__file__).with_name("fake_part.py"))))
