"""What the service promises about speed, pause and memory, each measured beside its baseline in the same run."""
