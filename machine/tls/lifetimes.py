"""How long certificates are valid, and when they are renewed and told of. All in days."""

CA_DAYS = 3650
LEAF_DAYS = 820
# A certificate that ends sooner is made anew at the machine's next start.
RENEW_DAYS = 60
# `ls`, `status` and `doctor` report certificates that end within so many days.
WARN_DAYS = 30
