"""One VM's dump from request to record: scheduled, run in a capture process, journalled, reconciled after a crash."""
