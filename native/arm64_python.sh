#!/bin/sh
# An arm64 CPython with what the tests need, for a Debian machine of another kind: native/arm64_python.sh FOLDER
#
# FOLDER/python runs it under emulation. Debian's packages are unpacked, not installed, so no root is needed, but
# qemu-user-static, apt-get, dpkg-deb and uv. QEMU_CPU names the processor: cortex-a53 has plain NEON, neoverse-n1 the dot
# products too, and `max,pauth-impdef=on,sve=off` everything (without pauth-impdef, emulated pointer signatures make a
# start ten times as slow).
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
project=$(cd "$(dirname "$0")/.." && pwd)
apt=$folder/apt root=$folder/root site=$folder/site
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 -v security) # where this machine's own packages are from

mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/none" "$root" "$site"
: > "$apt/status"
echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/none";
Dir::Etc::preferencesparts "$apt/none";
Dir::Etc::parts "$apt/none";
END
export APT_CONFIG="$apt/apt.conf"
apt-get -q update
apt-get -q -y --download-only install python3-minimal libpython3-stdlib libstdc++6
for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
for name in lib bin sbin; do [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"; done
unset APT_CONFIG
rm -rf "$apt"

python=$(cd "$root/usr/bin" && ls -d python3.*)
needed=$(sed -n '/^dependencies = \[/,/^\]/s/^ *"\([^"]*\)",.*/\1/p' "$project/pyproject.toml" | grep -v '^sis-')
# shellcheck disable=SC2086
uv pip install -q --target "$site" --python-platform aarch64-manylinux_2_28 --python-version "${python#python}" \
  --only-binary :all: $needed pytest

# Compiled here where a Python of that version is: emulated programs would take longer to compile than to run.
if native=$(uv python find --no-project "${python#python}" 2> /dev/null); then
  "$native" -m compileall -q -x "/(f2py|tests?)/" "$root/usr/lib/$python" "$site" || true # what is for other versions fails
fi

cat > "$folder/python.new" <<END
#!/bin/sh
export PYTHONHOME="$root/usr" PYTHONPATH="$site\${PYTHONPATH:+:\$PYTHONPATH}" OPENBLAS_NUM_THREADS=1
export QEMU_CPU="\${QEMU_CPU:-max,pauth-impdef=on,sve=off}"
exec qemu-aarch64-static -0 "$folder/python" -L "$root" "$root/usr/bin/$python" "\$@"
END
chmod +x "$folder/python.new"
"$folder/python.new" -c 'import numpy, platform; print(platform.machine(), platform.python_version(), numpy.__version__)'
mv "$folder/python.new" "$folder/python" # there once all of it is
