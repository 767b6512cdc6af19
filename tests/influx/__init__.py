"""A stand-in for InfluxDB 3 Core, and the tests of everything that talks to InfluxDB."""
