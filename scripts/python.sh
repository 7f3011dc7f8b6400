#!/bin/sh
# Name the Python to work with. Of those on the PATH that are new enough and can make an environment, the first that was
# built with optimisation (such a one balances about a tenth faster), else the first; with none, python3, and whoever
# uses it says what is wrong. Distributions optimise theirs and do not say so in its configuration.
first=
for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    path=$(command -v "$python" 2>/dev/null) || continue
    told=$("$python" -c '
import sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit(1)
is_fast = sys.base_prefix == "/usr" or "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
print("fast" if is_fast else "plain", "python%d.%d-venv" % sys.version_info[:2])
' 2>/dev/null) || continue
    # Debian keeps what makes environments in a package of its own, which venv.sh installs.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        apt-get -qq --simulate install "${told#* }" >/dev/null 2>&1 || continue
    [ "${told% *}" = fast ] && { echo "$path"; exit; }
    first=${first:-$path}
done
echo "${first:-python3}"
