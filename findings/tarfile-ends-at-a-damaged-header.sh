#!/usr/bin/env bash
# Python's tarfile (3.11.7, 3.13), and webdataset 1.0.2, which reads with it: a damaged header in the middle of a tar ends it without a word.
#
# TarFile.next() takes a header whose checksum is wrong, unless it is the first, and one that is cut off, for the end of the archive.
# All members behind it are missing from getnames(), extractall() and iteration, without an exception or a warning. GNU tar reads on
# at the next header and exits with status 2; where the last header is cut off, it says nothing either. So a data set in WebDataset
# shards loses part of a shard: with one bit wrong in the fourth of six headers, or after a download that ended early, training goes
# on with what comes before.
#
# Output on 2026-11-29, for six samples:
#   one bit wrong in the fourth header: tarfile 3 members, webdataset 3 samples; GNU tar exits with 2
#   cut off within the fifth header:    tarfile 4 members, webdataset 4 samples; GNU tar exits with 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q webdataset==1.0.2 numpy setuptools
cat > read.py <<'PYTHON'
import io
import subprocess
import tarfile

import webdataset

whole = io.BytesIO()
with tarfile.open(fileobj=whole, mode="w") as tar:
    for i in range(6):
        member = tarfile.TarInfo(f"{i:03}.cls")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"0"))
whole = whole.getvalue()  # of each sample a header of 512 bytes, and a block of 512 with its content
wrong = bytearray(whole)
wrong[3 * 1024 + 2] ^= 1
for what, content, left, theirs in (
    ("one bit wrong in the fourth header:", bytes(wrong), 3, 2),
    ("cut off within the fifth header:   ", whole[: 4 * 1024 + 100], 4, 0),
):
    with open("shard.tar", "wb") as file:
        file.write(content)
    with tarfile.open("shard.tar") as tar:
        members = len(tar.getnames())
    samples = len(list(webdataset.WebDataset("shard.tar", shardshuffle=False)))
    status = subprocess.run(["tar", "tf", "shard.tar"], capture_output=True).returncode
    print(f"{what} tarfile {members} members, webdataset {samples} samples; GNU tar exits with {status}")
    assert (members, samples, status) == (left, left, theirs)
PYTHON
env/bin/python read.py
