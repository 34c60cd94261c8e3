"""How good a head is: threshold, metrics, intervals, calibration."""
