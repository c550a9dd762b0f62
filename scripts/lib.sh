# Shared by the scripts beside it: where `make run` keeps its things.
bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/bin
socket=/run/shoal/shoal.sock
pidfile=/run/shoald.pid
logfile=/var/log/shoald.log

# ours says whether the recorded daemon lives and is shoald.
ours() { [ -s "$pidfile" ] && [ "$(cat "/proc/$(cat "$pidfile")/comm" 2>/dev/null)" = shoald ]; }
