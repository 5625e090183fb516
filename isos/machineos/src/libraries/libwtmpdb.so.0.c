/*
 * In place of Debian's libwtmpdb, which sshd needs: it records logins in an SQLite database. In machineos nobody reads
 * it, and without it the ISO is smaller by SQLite, and a login needn't open a database.
 */
#include <stddef.h>
#include <stdint.h>

int64_t wtmpdb_login(const char *path, int type, const char *user, uint64_t usec_login, const char *tty,
                     const char *rhost, const char *service, char **error)
{
    (void)path, (void)type, (void)user, (void)usec_login, (void)tty, (void)rhost, (void)service;
    if (error)
        *error = NULL;
    return 1;
}

int wtmpdb_logout(const char *path, int64_t id, uint64_t usec_logout, char **error)
{
    (void)path, (void)id, (void)usec_logout;
    if (error)
        *error = NULL;
    return 0;
}

int64_t wtmpdb_get_id(const char *path, const char *tty, char **error)
{
    (void)path, (void)tty;
    if (error)
        *error = NULL;
    return 1;
}
