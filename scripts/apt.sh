#!/bin/sh
# Have these programs on the machine: apt.sh PROGRAM...
# Installs what is missing with apt, as root or with a sudo that asks nothing, and keeps the packages' own daemons from
# starting. Where that is not allowed: one line that says what to do, and status 1.
set -eu
PATH=$PATH:/usr/sbin:/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done
policy=/usr/sbin/policy-rc.d

missing='' packages=''
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 && continue
    case $program in
        mariadbd) package=mariadb-server ;;
        nginx) package=nginx-light ;;
        postgres) package=postgresql ;;
        *) package=$program ;;
    esac
    missing="$missing $program" packages="$packages $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing. Install with this system's package manager." >&2
    exit 1
elif [ "$(id -u)" = 0 ]; then become=
elif sudo -n true 2>/dev/null; then become="sudo -n"
else
    echo "missing:$missing. Install with: sudo apt-get install$packages" >&2
    exit 1
fi

# Debian's own switch for "start nothing"; a policy that is already there is somebody's, and stays as it is.
if [ ! -e "$policy" ]; then
    trap '$become rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' | $become tee "$policy" >/dev/null
    $become chmod 755 "$policy"
fi
echo "installing$packages"
$become apt-get update -qq
# shellcheck disable=SC2086  # a list of package names
$become env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -qq -y --no-install-recommends $packages >/dev/null
