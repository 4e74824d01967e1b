"""Where everything comes from: hashes of artifacts, what made them (`records`), and a run's manifest (`manifest`).

Every stage hashes what it is handed and what it leaves, and puts its record into its outputs (`embedded`), where the
next stage finds it. The report collects the records into the run's manifest.
"""
