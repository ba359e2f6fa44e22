#!/bin/sh
# verify.sh HOST:PORT [SCENE...]
#
# Checks gray release with curl only, as the Spring Cloud design shows it: order-app calls user-app,
# each has V1 (production) and V2 (gray). The rules must fit the scene:
#   one     switched off: both versions of both services are seen
#   two     switched on, nothing matches: V1 only
#   header  the header gray: gray-996 is gray: V2 only, through order-app to user-app
#   ip      the address 127.0.0.1 is gray
#   city    the city of 127.0.0.1 (本地) is gray
#   user    the user number 1001 is gray
# Without a scene: two and header. Exits with 1 if a scene fails.
set -eu
gateway=$1
shift
[ $# -gt 0 ] || set -- two header

failed=0

# versions COUNT CURL-ARGUMENTS: the versions of user-app and order-app of each answer, one a line;
# the answer itself where there is none in it
versions() {
  count=$1
  shift
  while [ "$count" -gt 0 ]; do
    count=$((count - 1))
    answer=$(curl -sS --max-time 10 "$@" "http://$gateway/order/1" 2>&1) || true
    found=$(echo "$answer" | grep -o '"version":"[^"]*"' | cut -d'"' -f4 | tr '\n' ' ')
    echo "${found:-$answer}"
  done
}

# check SCENE EXPECTED SEEN
check() {
  if [ "$2" = "$3" ]; then
    echo "ok      $1"
  else
    failed=1
    echo "FAILED  $1"
    echo "  expected: $2"
    echo "  seen:     $3"
  fi
}

only() { versions 20 "$@" | sort -u | tr '\n' ';'; }

for scene in "$@"; do
  case $scene in
  one)
    for place in 1 2; do
      seen=$(versions 40 | cut -d' ' -f$place | sort -u | tr '\n' ' ')
      check "one: switched off, both versions of service $place on the way" 'V1 V2 ' "$seen"
    done
    ;;
  two)
    check 'two: nothing matches, V1 only' 'V1 V1 ;' "$(only)"
    check 'two: another value of the header, V1 only' 'V1 V1 ;' "$(only -H 'gray: gray-997')"
    check 'two: a forged lane, V1 only' 'V1 V1 ;' "$(only -H 'gray: GRAY' -H 'x-real-ip: 127.0.0.1')"
    ;;
  header) check 'three: by header, V2 only' 'V2 V2 ;' "$(only -H 'gray: gray-996')" ;;
  ip) check 'three: by address, V2 only' 'V2 V2 ;' "$(only)" ;;
  city) check 'three: by city, V2 only' 'V2 V2 ;' "$(only)" ;;
  user)
    check 'three: by user, V2 only' 'V2 V2 ;' "$(only -H 'x-user-no: 1001')"
    check 'three: another user, V1 only' 'V1 V1 ;' "$(only -H 'x-user-no: 1002')"
    ;;
  *)
    echo "unknown scene $scene" >&2
    exit 2
    ;;
  esac
done
exit $failed
