"""A stand-in for InfluxDB 3 Core, and the tests of everything that talks to InfluxDB.

``StandIn`` (``stand_in.py``) is one port that speaks HTTP (writing, ``/health``, ``/ping``) and Arrow Flight (SQL), so the
official client cannot tell it from Core. ``test_server.py`` is what the product relies on; with ``TEST_INFLUX_URL`` and
``TEST_INFLUX_TOKEN`` it runs unchanged against a real server. To try the product by hand:

    python -m tests.influx.stand_in --token secret
    INFLUX_URL=http://127.0.0.1:8181 INFLUX_TOKEN=secret python -m app

Like Core, as read in its source (each module names the files), its documentation, and what others recorded of 3.11.5:

* the grammar of line protocol, its refusals word for word, numbering of lines, ``original_line`` cut to 20 bytes;
* column types fixed by the first write; ``accept_partial``, ``no_sync``, ``precision`` and its guess; gzip; the endpoint of
  version 2, which takes all or nothing and does not say which line was wrong;
* errors of queries: no database, no table, no column, too many Parquet files (one for each table and ten minutes);
* the token on every path, ``/health`` and ``/ping`` too; no more than five databases;
* a write is confirmed, and can be queried, when the WAL was flushed (``wal_sec``; Core's is one second, here zero unless set);
* points with the same tags and time written twice: a query sees one of them, and which one is open (issue 27548 of
  influxdata/influxdb). Here a seed and the text of the query decide.

Not like Core:

* all is in memory, and nothing else of Core's HTTP interface is there; no InfluxQL, no Flight SQL, no TLS, no system
  tables, no functions beyond DataFusion's own (``date_bin_gapfill``, ``selector_first`` …);
* every written slot of ten minutes counts as one file at once; Core counts what was snapshotted from the WAL, and a slot that was
  written to at different times can be several files;
* only comparisons of ``time`` joined by AND narrow the files that a query opens;
* whether a new tag is refused (``tags_fixed``, as in early versions) or becomes a column (recent ones) is a choice;
* the limits of columns and tables are not there; where Core's text for a refusal is not known (``precision=wrong``), it is ours;
* behind the text of some gRPC errors stands "Detail: Python exception" with a traceback, which pyarrow's server adds.
"""
