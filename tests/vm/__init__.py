"""The appliance in the VM of the Vagrantfile; run by ``make vm-test``, and not by ``make test``."""
