"""`make e2e`: the tests that run real processes together, and the recorded streams, by component."""

import argparse
import subprocess
import sys

COMPONENTS = ("coordinator", "worker", "resource-manager", "trend-analyzer")


def main() -> int:
    """Run pytest over tests/e2e and tests/integration, all of it or one component's part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--component", default="all")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if options.component not in ("all", *COMPONENTS):
        known = "|".join((*COMPONENTS, "all"))
        sys.stderr.write(f"error: COMPONENT={options.component} is not known\n  expected {known}\n")
        return 2
    command = [sys.executable, "-m", "pytest", "tests/e2e", "tests/integration"]
    if options.component != "all":
        command += ["-m", options.component.replace("-", "_")]
    command += ["-v", "--log-cli-level=INFO"] if options.verbose else []
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
