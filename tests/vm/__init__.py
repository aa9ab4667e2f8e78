"""The appliance in the VM of the Vagrantfile; run by ``make vm-test``, not by ``make test``."""
