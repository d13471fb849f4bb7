/* sudo for the guest: members of the group wheel become another user without a password.
 *
 *   sudo [-nEHiskS] [-u USER] [NAME=VALUE ...] [COMMAND [ARGUMENT ...]]
 */
#define _GNU_SOURCE
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int may(void)
{
    gid_t groups[64];
    struct group *wheel = getgrnam("wheel");
    int n = getgroups(64, groups);

    if (getuid() == 0)
        return 1;
    if (wheel == NULL)
        return 0;
    if (getgid() == wheel->gr_gid)
        return 1;
    for (int i = 0; i < n; i++)
        if (groups[i] == wheel->gr_gid)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    const char *user = "root";
    int c, login = 0, shell = 0, keep = 0;
    struct passwd *who;
    char *term = getenv("TERM");
    char uid[16];

    while ((c = getopt(argc, argv, "+nEHiskSu:")) != -1) {
        switch (c) {
        case 'i': login = 1; break;
        case 's': shell = 1; break;
        case 'E': keep = 1; break;
        case 'u': user = optarg; break;
        case '?': return 1;
        default: break;
        }
    }
    if (!may()) {
        fprintf(stderr, "sudo: you are not in the group wheel\n");
        return 1;
    }
    snprintf(uid, sizeof uid, "%u", (unsigned) getuid());
    who = getpwnam(user);
    if (who == NULL) {
        fprintf(stderr, "sudo: unknown user: %s\n", user);
        return 1;
    }
    if (initgroups(who->pw_name, who->pw_gid) || setgid(who->pw_gid) || setuid(who->pw_uid)) {
        perror("sudo");
        return 1;
    }
    if (!keep) {
        clearenv();
        if (term != NULL)
            setenv("TERM", term, 1);
    }
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", who->pw_dir, 1);
    setenv("USER", who->pw_name, 1);
    setenv("LOGNAME", who->pw_name, 1);
    setenv("SHELL", who->pw_shell, 1);
    setenv("SUDO_UID", uid, 1);
    while (optind < argc && strchr(argv[optind], '=') != NULL && argv[optind][0] != '/')
        putenv(argv[optind++]);
    if (optind < argc && !login && !shell) {
        execvp(argv[optind], argv + optind);
        fprintf(stderr, "sudo: %s: command not found\n", argv[optind]);
        return 127;
    }
    if (login && chdir(who->pw_dir))
        perror("sudo");
    if (optind < argc) {
        size_t size = 1;
        char *line;

        for (int i = optind; i < argc; i++)
            size += strlen(argv[i]) + 1;
        line = calloc(1, size);
        if (line == NULL)
            return 1;
        for (int i = optind; i < argc; i++) {
            strcat(line, argv[i]);
            if (i + 1 < argc)
                strcat(line, " ");
        }
        execl(who->pw_shell, login ? "-sh" : "sh", "-c", line, (char *) NULL);
    } else if (!login && !shell) {
        fprintf(stderr, "usage: sudo [-nEHis] [-u USER] [NAME=VALUE ...] COMMAND\n");
        return 1;
    } else {
        execl(who->pw_shell, login ? "-sh" : "sh", (char *) NULL);
    }
    perror("sudo");
    return 127;
}
