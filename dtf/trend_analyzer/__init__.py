"""The trend analyzer: follows the log, keeps the metric store, answers what reports ask."""
