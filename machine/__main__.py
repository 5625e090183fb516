from machine.cli import main

if __name__ == "__main__":
    main()
