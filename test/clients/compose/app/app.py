"""GET: what cache and database hold. POST: a job for the workers."""
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

cache = redis.Redis(os.environ["CACHE"])


def database():
    return psycopg2.connect(os.environ["DATABASE"])


with database() as connection, connection.cursor() as cursor:
    # The worker makes it, too, maybe at the same moment.
    cursor.execute("SELECT pg_advisory_xact_lock(1)")
    cursor.execute("CREATE TABLE IF NOT EXISTS done (job text, worker text)")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT job, worker FROM done ORDER BY job")
            done = cursor.fetchall()
        answer = {"greeting": os.environ["GREETING"], "hits": cache.incr("hits"), "done": done}
        self.reply(json.dumps(answer).encode())

    def do_POST(self):
        cache.rpush("jobs", self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(b"queued")

    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("serving")
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
