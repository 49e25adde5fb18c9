#!/bin/sh
# The file system of the image: build.sh SOURCE APP ROOT. The Dockerfile runs it in its first stage
# and takes ROOT/opt and ROOT/app into its second; it also runs without any container engine.
#   SOURCE: what `seawall ship image` writes, or the checkout.
#   APP: the folder with seawall.toml and the code of its tools.
#   ROOT: the result.
#   PYTHON: the interpreter that will run it.
set -eu
source=$1 app=$2 root=$3
python=${PYTHON:-python3}
site="$root/opt/seawall"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

lock="$source/requirements.lock"
[ -f "$source/seawall.zip" ] || lock="$source/deploy/image/requirements.lock"
install() {
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$site" \
        --no-warn-conflicts --only-binary :all: "$@"
}

# Exactly the files that the project is tested with, by hash.
mkdir -p "$site" "$root/app"
install --require-hashes --requirement "$lock"
if [ -f "$app/requirements.txt" ]; then
    if grep -q -- '--hash=' "$app/requirements.txt"; then
        install --upgrade --require-hashes --requirement "$app/requirements.txt"
    else
        echo "requirements.txt has no hashes: what is installed is whatever the index has" >&2
        sed -n '/^[A-Za-z0-9]/{s/ *\\$//;p;}' "$lock" > "$work/constraints.txt"
        install --upgrade --constraint "$work/constraints.txt" --requirement "$app/requirements.txt"
    fi
fi
if [ -f "$source/seawall.zip" ]; then
    "$python" -m zipfile -e "$source/seawall.zip" "$site"
else
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/pyproject.toml")
    cp -R "$source/src/seawall" "$site/seawall"
    mkdir "$site/seawall-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: seawall\nVersion: %s\n' "$version" \
        > "$site/seawall-$version.dist-info/METADATA"
fi

# Parts of packages that a server does not need.
rm -rf "$site/bin"
find "$site" -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' \) -delete

cp -R "$app/." "$root/app/"
find "$root/app" \( -name '*.db' -o -name '*.db-*' -o -name '.*' -o -name __pycache__ \) ! -path "$root/app" \
    -prune -exec rm -rf {} +
# The classifier is trained once, here; where the configuration names no cache, each start trains it.
if grep -q '^classifier_cache' "$root/app/seawall.toml" 2>/dev/null; then
    (cd "$root/app" && PYTHONPATH="$site" "$python" -m seawall intents train seawall.toml)
fi

# The file system is read-only at run time: what is not compiled now is compiled at every start.
"$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / "$site" "$root/app" || true
chmod -R a+rX,go-w "$root/opt" "$root/app"
du -sk "$site" "$root/app" | awk '{printf "%.1f MB %s\n", $1 / 1024, $2}'
