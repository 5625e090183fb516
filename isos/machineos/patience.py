"""How long the tools of the build may take, in seconds.

On two processors with nothing else to do, the longest (mksquashfs) takes a minute and a half. On a loaded computer it
was seen to take ten, and in an emulated machine twenty times that.
"""

DOWNLOAD = 2 * 3600.0
COMPRESS = 4 * 3600.0
COMPILE = 1800.0
WRITE = 1800.0
