"""Two networks, a volume, a database and a client of it by docker-py's high-level API."""
import time

import docker
from docker.types import IPAMConfig, IPAMPool

client = docker.from_env(version="1.26", timeout=120)
assert client.ping()

back = client.networks.create(
    "back", internal=True, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.78.0.0/24")]), labels={"project": "py"}
)
front = client.networks.create("front")
volume = client.volumes.create("pydata", labels={"project": "py"})
assert [n.name for n in client.networks.list(filters={"label": "project=py"})] == ["back"]

cache = client.containers.create(
    "services",
    ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"],
    name="cache",
    volumes={"pydata": {"bind": "/data", "mode": "rw"}},
    healthcheck={"test": ["CMD", "redis-cli", "ping"], "interval": 500_000_000, "timeout": 5_000_000_000, "retries": 60},
)
client.networks.get("bridge").disconnect(cache)
back.connect(cache, aliases=["keyvalue"], ipv4_address="10.78.0.10")
cache.start()
for _ in range(120):
    cache.reload()
    if cache.attrs["State"].get("Health", {}).get("Status") == "healthy":
        break
    time.sleep(0.25)
else:
    raise SystemExit(f"not healthy: {cache.attrs['State']}")
assert cache.attrs["NetworkSettings"]["Networks"]["back"]["IPAddress"] == "10.78.0.10"

said = client.containers.run(
    "services", ["redis-cli", "-h", "keyvalue", "set", "answer", "42"], network="back", remove=True
)
assert said.strip() == b"OK", said

asker = client.containers.run("services", ["sleep", "1000"], network="front", detach=True, name="asker")
code, output = asker.exec_run(["getent", "hosts", "keyvalue"])
assert code != 0, output
back.connect(asker)
code, output = asker.exec_run(["redis-cli", "-h", "keyvalue", "get", "answer"])
assert (code, output.strip()) == (0, b"42"), (code, output)

back.reload()
assert {c.name for c in back.containers} == {"cache", "asker"}
back.disconnect(asker)
asker.rename("renamed")
assert client.containers.get("renamed").id == asker.id
assert b"Ready to accept connections" in cache.logs()
assert [v.name for v in client.volumes.list(filters={"label": "project=py"})] == ["pydata"]

try:
    back.remove()
except docker.errors.APIError as error:
    assert error.response.status_code == 403, error
else:
    raise SystemExit("a network in use was removed")
for container in (asker, cache):
    container.stop(timeout=2)
    container.remove(v=True)
volume.remove()
back.remove()
assert client.networks.prune()["NetworksDeleted"] == ["front"]
print("all told")
