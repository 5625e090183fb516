"""Examples for every verb, which `machine help VERB` shows below the verb's own help: a command, and what it does.

tests/cli/test_help.py sees that each verb has some, and that each is a command line that machine understands.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "active": (("machine active", "Print which machine the docker client is set to."),),
    "autostart": (
        ("machine autostart dev on", "Start the machine dev when the host boots."),
        ("machine autostart dev", "Print whether it is on or off."),
    ),
    "completion": (
        ("machine completion bash >> ~/.bashrc", "Complete machine's words in bash."),
        ("machine completion fish > ~/.config/fish/completions/machine.fish", "The same in fish."),
    ),
    "config": (("docker $(machine config dev) ps", "Run one command of docker on the machine dev."),),
    "create": (
        ("machine create", "Make the machine `default` and start it."),
        ("machine create --memory 8G --cpus 4 dev", "Make the machine dev with 8 GiB of memory and 4 processors."),
        ("machine create --engine-insecure-registry registry.test:5000 dev", "With a registry that has no TLS."),
        ("machine create --mount /home/ann/project dev", "With that folder in it, at the same path."),
        ("machine create web db cache", "Make three machines at once."),
    ),
    "docker-context": (
        ("machine docker-context dev", "Make the docker context machine-dev."),
        ("machine docker-context --remove dev", "Remove it again."),
    ),
    "doctor": (
        ("machine doctor", "Find problems of this host and its machines, and print how to fix them."),
        ("machine doctor --repair", "Repair what can be repaired, and remove what no machine owns."),
    ),
    "down": (
        ("machine down", "Shut down the machines of the project in this folder."),
        ("machine down --rm -y", "Remove them, with all that is on their disks."),
    ),
    "env": (
        ('eval "$(machine env dev)"', "Point the docker client of this shell at the machine dev."),
        ("machine env --shell fish dev | source", "The same in fish."),
        ('eval "$(machine env -u)"', "Undo it."),
    ),
    "export": (
        ("machine export dev dev.machine", "Write the machine dev, with its disk and keys, into a file."),
        ("machine export --gzip dev dev.machine.gz", "Into a smaller file, more slowly."),
    ),
    "help": (("machine help create", "Print what `create` does, its options and examples."),),
    "image": (
        ("machine image ls", "List what is in the cache."),
        ("machine image pull debian-12", "Fetch a cloud image of the catalog."),
        ("machine image prune", "Remove what no machine boots."),
    ),
    "import": (
        ("machine import dev.machine", "Make a machine from a file that `machine export` wrote."),
        ("machine import --name dev2 dev.machine", "Under another name."),
        ("machine import --isolated dev.machine", "Without shared folders and what else reaches this host."),
    ),
    "import-docker-machine": (
        ("machine import-docker-machine", "Take over the machines of docker-machine; its own files stay as they are."),
        ("machine import-docker-machine --dry-run", "Only print what would be taken over."),
    ),
    "init": (
        ("machine init", "Write a machine.yaml with one machine, which comments explain."),
        ("machine init --from dev", "Write one that describes the machine dev."),
    ),
    "inspect": (
        ("machine inspect dev", "Print all that is known of the machine dev."),
        ("machine inspect --format '{{.Driver.IPAddress}}' dev", "Print one value."),
    ),
    "ip": (("machine ip dev", "Print the address of the machine dev."),),
    "iso": (
        ("machine iso build", "Build machineos, the machines' operating system, from Debian's packages."),
        ("machine iso ls", "List the images in the cache."),
    ),
    "kill": (("machine kill dev", "Switch the machine dev off at once, when `stop` doesn't help."),),
    "logs": (
        ("machine logs -n 50 dev", "Print the last 50 lines of the machine's console."),
        ("machine logs -f dev", "Print new lines as they come."),
    ),
    "ls": (
        ("machine ls", "List the machines."),
        ("machine ls --filter state=Running -q", "Print the names of those that run."),
        ("machine ls --format '{{.Name}}\\t{{.URL}}'", "Print what you choose."),
    ),
    "mount": (
        ("machine mount add dev /data", "Show /data of this host in the machine dev, for docker run -v."),
        ("machine mount ls", "List such folders of all machines."),
        ("machine mount rm dev /data", "Show it there no more."),
        ("machine mount dev:/home/docker work", "Show the machine's /home/docker in the folder work of this host."),
        ("machine mount -u work", "End it."),
    ),
    "plan": (
        ("machine plan", "Print what machine up would do, and what that means for this computer."),
        ("machine plan --check", "End with exit code 2 when there is something to do, in a script."),
    ),
    "provision": (("machine provision dev", "Apply the settings of the machine and its Docker again."),),
    "regenerate-certs": (
        ("machine regenerate-certs dev", "Give the machine dev a new server certificate. Containers keep running."),
        ("machine regenerate-certs --client-certs", "Make a new client certificate for all machines, too."),
        ("machine regenerate-certs --ca -f", "Make a new CA and all new certificates, without asking."),
    ),
    "restart": (("machine restart dev", "Stop the machine dev and start it again. Its address stays."),),
    "resume": (("machine resume dev", "Continue where `suspend` stopped."),),
    "rm": (("machine rm -y dev", "Remove the machine dev and its disk, without asking."),),
    "schema": (("machine schema > machine.schema.json", "Write the schema beside machine.yaml, for editors."),),
    "scp": (
        ("machine scp notes.txt dev:", "Copy a file into the machine's home folder."),
        ("machine scp -r dev:/etc/docker .", "Copy a folder from the machine."),
        ("machine scp -r --delta site dev:/home/docker", "Send only what differs, by rsync."),
        ("machine scp one:a.tar two:", "Copy from one machine to another."),
    ),
    "set": (
        ("machine set --memory 4G dev", "Give the machine dev 4 GiB of memory, while it runs."),
        ("machine set --engine-insecure-registry 10.0.2.2:5000 dev", "Let its Docker speak plain HTTP to a registry."),
        ("machine set --engine-label-rm stage dev", "Take a label away again."),
        ("machine set --sysctl vm.max_map_count=1048576 dev", "Change its kernel's setting, now and at each boot."),
        ("machine set --disk 40G --cpus 4 dev", "A larger disk at once, more processors at the next start."),
    ),
    "setup": (
        ("machine setup", "Print what this host lacks for machines, and the commands that bring it."),
        ("machine setup --yes", "Run these commands."),
    ),
    "snapshot": (
        ("machine snapshot create dev before-upgrade", "Save the machine's memory and disk under a name."),
        ("machine snapshot restore dev before-upgrade", "Restore them."),
    ),
    "ssh": (
        ("machine ssh dev", "Log in to the machine dev."),
        ("machine ssh dev docker ps", "Run a command on it."),
        ("machine ssh dev -L 8080:127.0.0.1:80 -N", "Reach a port of it as port 8080 of this host."),
    ),
    "ssh-config": (
        ("machine ssh-config --install", "Let ssh and editors know the machines, as machine-NAME."),
        ("machine ssh-config dev", "Print the entry of the machine dev."),
    ),
    "start": (("machine start dev", "Start the machine dev and wait until Docker answers."),),
    "status": (("machine status dev", "Print the state of the machine dev."),),
    "stop": (
        ("machine stop web db", "Shut two machines down, when their containers have ended."),
        ("machine stop --timeout 20 dev", "Stop it within 20 s: containers that take longer are killed."),
    ),
    "cluster": (
        ("machine cluster create lab --managers 3 --workers 2", "Make five machines, and one swarm of them."),
        ('eval "$(machine cluster env lab)"', "Point the docker client at a manager that answers."),
        ("machine cluster status lab", "Print its nodes, and how many managers it can still lose."),
        ("machine cluster scale lab --workers 4", "Give it more workers, or fewer."),
        ("machine cluster repair lab", "Start what is off, and make anew what is gone."),
        ("machine cluster rm -y lab", "Remove all its machines."),
    ),
    "network": (
        ("machine network ls", "List the networks on which machines reach each other."),
        ("machine network create lab", "Make another one, for: machine create --network lab dev"),
        ("machine network inspect machines", "Print the machines on a network, and their addresses there."),
    ),
    "suspend": (("machine suspend dev", "Write the machine's memory to disk and switch it off."),),
    "template": (
        ("machine template ls", "List the booted machines that new ones are cloned from."),
        ("machine template prune", "Remove those that no new machine is cloned from any more."),
    ),
    "up": (
        ("machine up", "Make, change and start the machines of the project in this folder."),
        ("machine up --arg size=4G web", "Only the machine web, with a value for an argument of the file."),
        ("machine up --recreate web --prune", "Make web anew, and remove what the file has no more."),
    ),
    "upgrade": (("machine upgrade dev", "Restart the machine dev with the newest machineos in the cache."),),
    "url": (("machine url dev", "Print the address of the machine's Docker daemon."),),
    "version": (
        ("machine version", "Print the version of machine."),
        ("machine version dev", "Print the version of the machine's Docker."),
    ),
}
