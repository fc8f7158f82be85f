"""dtf runs test and benchmark suites over an elastic pool of workers, on a durable event log."""
