"""Real processes: s is stopped, ann logs out at a (answered), the end becomes a mark, a is restarted, s goes on."""
import http.client, json, signal, sys, tempfile, time
from contextlib import ExitStack
from pathlib import Path
from tests.network.clusters import free_ports
from tests.server_process import served

def ask(port, path, cookies):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    c.request("GET", path, headers={"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())} if cookies else {})
    r = c.getresponse()
    out = r.status, r.read().decode()[:80]
    for s in r.headers.get_all("Set-Cookie") or ():
        n, _, v = s.partition(";")[0].partition("=")
        cookies[n] = v
    c.close()
    return out

pa, ps, na, ns = free_ports(4)
def start(stack, folder, port, node):
    url = (f"all-to-all://?members=127.0.0.1:{na},127.0.0.1:{ns}&me=127.0.0.1:{node}&drain_grace=0&tls=off"
           "&tombstone_keep=4s&rotation_grace=1s&ack_timeout=1s&pull_timeout=1s")
    return stack.enter_context(served(["uvicorn", "tests.adversary.app:app", "--port", str(port), "--lifespan", "on"], port, folder, SESSILE_URL=url))
with tempfile.TemporaryDirectory() as d, ExitStack() as stack:
    folder = Path(d)
    s = start(stack, folder, ps, ns)
    try:
        with ExitStack() as inner:
            a = start(inner, folder, pa, na)
            time.sleep(3)
            cookies = {}
            print("login at s", ask(ps, "/login", cookies))
            old = dict(cookies)
            time.sleep(0.5)
            print("at a", ask(pa, "/", dict(old)))
            s.process.send_signal(signal.SIGSTOP)
            time.sleep(2)
            print("logout at a", ask(pa, "/logout", cookies))
            time.sleep(8)
            print("old cookie at a", ask(pa, "/", dict(old)))
        time.sleep(0.5)
        a2 = start(stack, folder, pa, na)
        time.sleep(3)
        print("old cookie at a, restarted", ask(pa, "/", dict(old)))
        s.process.send_signal(signal.SIGCONT)
        time.sleep(4)
        print("old cookie at s", ask(ps, "/", dict(old)))
        print("old cookie at a", ask(pa, "/", dict(old)))
    finally:
        s.process.send_signal(signal.SIGCONT)
