// ContainerHosting
