"""Saves what a deployment cannot make again, and puts it back: one tar file, from and into either kind of database.

archive.py   a tar file that says what belongs in it
rows.py      the tables as JSON lines: from SQLite into PostgreSQL is no other way than from SQLite into SQLite
home.py      which files of $NANOCHAT_HOME are kept
save.py      a backup, while the services run
restore.py   into an empty home and an empty database, or not at all
"""
