"""Values, stretches and combinations of values that do not belong to the series they are in."""

from dtf.core.trend.anomalies.batch import find_anomalies
from dtf.core.trend.anomalies.detector import ALARM_SCORE, FINDING_SCORE, AnomalyDetector
from dtf.core.trend.anomalies.multivariate import MultivariateDetector

__all__ = ["ALARM_SCORE", "FINDING_SCORE", "AnomalyDetector", "MultivariateDetector", "find_anomalies"]
