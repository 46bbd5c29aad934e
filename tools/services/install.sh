#!/usr/bin/env bash
# Install what the tests need of Redis, PostgreSQL and Kafka, each only where it is missing. Quiet and quick when all
# is there. What cannot be installed is named in one line with its cure, and the exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
POM=tools/services/pom.xml
KAFKA=.services/kafka
status=0

have_postgres() { command -v initdb > /dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null; }

# Kafka 4 needs Java 17 or newer.
have_java() {
  local version
  version=$(java -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
  [ "${version:-0}" -ge 17 ]
}

missing() {
  command -v redis-server > /dev/null || echo redis-server
  have_postgres || echo postgresql
  have_java || echo default-jre-headless
  have_kafka || command -v mvn > /dev/null || echo maven
}

# The copy of the pom is made last, so it says that the jars are all there and are the ones it asks for.
have_kafka() { cmp --silent "$POM" "$KAFKA/pom.xml"; }

cannot() { echo "services: cannot install $1: $2" >&2; status=1; }

apt_install() {
  local as_root=() log
  if ! command -v apt-get > /dev/null; then
    cannot "$*" "no apt-get here; install them with this system's package manager and put them on PATH"
    return
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2> /dev/null; then
      cannot "$*" "not root; run: sudo apt-get install $*"
      return
    fi
    as_root=(sudo -n)
  fi
  log=$(mktemp)
  # RUNLEVEL=1: the packages' own servers are not started; tests start theirs.
  if ! { "${as_root[@]}" apt-get -qq update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
         apt-get -qq install --no-install-recommends --yes "$@"; } > "$log" 2>&1; then
    cannot "$*" "apt-get failed: $(grep -m1 '^E:' "$log" || tail -n 1 "$log")"
  fi
  rm -f "$log"
}

install_kafka() {
  local log
  if ! command -v mvn > /dev/null; then
    cannot "Kafka" "no mvn; install Maven (apt: maven) and call this again"
    return
  fi
  log=$(mktemp)
  rm -rf "$KAFKA"
  if mvn --quiet --batch-mode --file "$POM" dependency:copy-dependencies -DincludeScope=runtime \
       -DoutputDirectory="$PWD/$KAFKA/libs" > "$log" 2>&1; then
    cp "$POM" "$KAFKA/pom.xml"
  else
    cannot "Kafka" "mvn failed: $(grep -m1 'ERROR' "$log" | cut -c1-200)"
  fi
  rm -f "$log"
}

packages=$(missing)
# shellcheck disable=SC2086 # one word a package
[ -z "$packages" ] || apt_install $packages
have_kafka || install_kafka
exit $status
