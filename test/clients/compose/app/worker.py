"""Takes jobs from the cache and notes in the database who did them."""
import os
import socket

import psycopg2
import redis

cache = redis.Redis(os.environ["CACHE"])
connection = psycopg2.connect(os.environ["DATABASE"])
with connection, connection.cursor() as cursor:
    # The application makes it, too, maybe at the same moment.
    cursor.execute("SELECT pg_advisory_xact_lock(1)")
    cursor.execute("CREATE TABLE IF NOT EXISTS done (job text, worker text)")
connection.autocommit = True
print("waiting for jobs")
try:
    while True:
        _, job = cache.blpop("jobs")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO done VALUES (%s, %s)", (job.decode(), socket.gethostname()))
        print("did", job.decode())
except KeyboardInterrupt:
    print("leaving")
